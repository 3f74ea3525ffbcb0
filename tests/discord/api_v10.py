"""Every endpoint of Discord's API v10 that its documentation and two client libraries name."""

from __future__ import annotations

import re
from hashlib import blake2b

__all__ = ["endpoints"]

# Methods, an example, the template and the top-level resource of each endpoint; "#" stands for a token's digest.
ENDPOINTS = """
GET PATCH             /applications/@me                                  /applications/@me
GET                   /applications/7/activity-instances/i-12-gc-3-4     /applications/{application_id}/activity-instances/{instance_id}
GET PUT POST          /applications/7/commands                           /applications/{application_id}/commands
GET PATCH DELETE      /applications/7/commands/8                         /applications/{application_id}/commands/{command_id}
GET PUT POST          /applications/7/guilds/5/commands                  /applications/{application_id}/guilds/{guild_id}/commands
GET PATCH DELETE      /applications/7/guilds/5/commands/8                /applications/{application_id}/guilds/{guild_id}/commands/{command_id}
GET PUT               /applications/7/guilds/5/commands/permissions      /applications/{application_id}/guilds/{guild_id}/commands/permissions
GET PUT               /applications/7/guilds/5/commands/8/permissions    /applications/{application_id}/guilds/{guild_id}/commands/{command_id}/permissions
GET POST              /applications/7/emojis                             /applications/{application_id}/emojis
GET PATCH DELETE      /applications/7/emojis/8                           /applications/{application_id}/emojis/{emoji_id}
GET POST              /applications/7/entitlements                       /applications/{application_id}/entitlements
GET DELETE            /applications/7/entitlements/8                     /applications/{application_id}/entitlements/{entitlement_id}
POST                  /applications/7/entitlements/8/consume             /applications/{application_id}/entitlements/{entitlement_id}/consume
GET PUT               /applications/7/role-connections/metadata          /applications/{application_id}/role-connections/metadata
GET                   /applications/7/skus                               /applications/{application_id}/skus
GET PATCH DELETE      /channels/1                                        /channels/{channel_id}                                        channels/1
POST                  /channels/1/followers                              /channels/{channel_id}/followers                              channels/1
GET POST              /channels/1/invites                                /channels/{channel_id}/invites                                channels/1
GET POST              /channels/1/messages                               /channels/{channel_id}/messages                               channels/1
GET PATCH DELETE      /channels/1/messages/2                             /channels/{channel_id}/messages/{message_id}                  channels/1
POST                  /channels/1/messages/2/crosspost                   /channels/{channel_id}/messages/{message_id}/crosspost        channels/1
GET                   /channels/1/messages/2/reactions/a:3               /channels/{channel_id}/messages/{message_id}/reactions/{emoji}  channels/1
POST                  /channels/1/messages/2/threads                     /channels/{channel_id}/messages/{message_id}/threads          channels/1
POST                  /channels/1/messages/bulk-delete                   /channels/{channel_id}/messages/bulk-delete                   channels/1
GET                   /channels/1/messages/pins                          /channels/{channel_id}/messages/pins                          channels/1
PUT DELETE            /channels/1/messages/pins/2                        /channels/{channel_id}/messages/pins/{message_id}             channels/1
PUT DELETE            /channels/1/permissions/2                          /channels/{channel_id}/permissions/{overwrite_id}             channels/1
GET                   /channels/1/pins                                   /channels/{channel_id}/pins                                   channels/1
PUT DELETE            /channels/1/pins/2                                 /channels/{channel_id}/pins/{message_id}                      channels/1
GET                   /channels/1/polls/2/answers/3                      /channels/{channel_id}/polls/{message_id}/answers/{answer_id}  channels/1
POST                  /channels/1/polls/2/expire                         /channels/{channel_id}/polls/{message_id}/expire              channels/1
PUT DELETE            /channels/1/recipients/2                           /channels/{channel_id}/recipients/{user_id}                   channels/1
POST                  /channels/1/send-soundboard-sound                  /channels/{channel_id}/send-soundboard-sound                  channels/1
GET                   /channels/1/thread-members                         /channels/{channel_id}/thread-members                         channels/1
GET PUT DELETE        /channels/1/thread-members/2                       /channels/{channel_id}/thread-members/{user_id}               channels/1
PUT DELETE            /channels/1/thread-members/@me                     /channels/{channel_id}/thread-members/@me                     channels/1
POST                  /channels/1/threads                                /channels/{channel_id}/threads                                channels/1
GET                   /channels/1/threads/archived/private               /channels/{channel_id}/threads/archived/private               channels/1
GET                   /channels/1/threads/archived/public                /channels/{channel_id}/threads/archived/public                channels/1
GET                   /channels/1/threads/search                         /channels/{channel_id}/threads/search                         channels/1
POST                  /channels/1/typing                                 /channels/{channel_id}/typing                                 channels/1
GET                   /channels/1/users/@me/threads/archived/private     /channels/{channel_id}/users/@me/threads/archived/private     channels/1
PUT                   /channels/1/voice-status                           /channels/{channel_id}/voice-status                           channels/1
GET POST              /channels/1/webhooks                               /channels/{channel_id}/webhooks                               channels/1
GET                   /gateway                                           /gateway
GET                   /gateway/bot                                       /gateway/bot
POST                  /guilds                                            /guilds
GET PATCH DELETE      /guilds/5                                          /guilds/{guild_id}                                            guilds/5
GET                   /guilds/5/audit-logs                               /guilds/{guild_id}/audit-logs                                 guilds/5
GET POST              /guilds/5/auto-moderation/rules                    /guilds/{guild_id}/auto-moderation/rules                      guilds/5
GET PATCH DELETE      /guilds/5/auto-moderation/rules/8                  /guilds/{guild_id}/auto-moderation/rules/{rule_id}            guilds/5
GET                   /guilds/5/bans                                     /guilds/{guild_id}/bans                                       guilds/5
GET PUT DELETE        /guilds/5/bans/8                                   /guilds/{guild_id}/bans/{user_id}                             guilds/5
POST                  /guilds/5/bulk-ban                                 /guilds/{guild_id}/bulk-ban                                   guilds/5
GET POST PATCH        /guilds/5/channels                                 /guilds/{guild_id}/channels                                   guilds/5
GET POST              /guilds/5/emojis                                   /guilds/{guild_id}/emojis                                     guilds/5
GET PATCH DELETE      /guilds/5/emojis/8                                 /guilds/{guild_id}/emojis/{emoji_id}                          guilds/5
PUT                   /guilds/5/incident-actions                         /guilds/{guild_id}/incident-actions                           guilds/5
GET                   /guilds/5/integrations                             /guilds/{guild_id}/integrations                               guilds/5
PATCH DELETE          /guilds/5/integrations/8                           /guilds/{guild_id}/integrations/{integration_id}              guilds/5
POST                  /guilds/5/integrations/8/sync                      /guilds/{guild_id}/integrations/{integration_id}/sync         guilds/5
GET                   /guilds/5/invites                                  /guilds/{guild_id}/invites                                    guilds/5
GET PATCH             /guilds/5/member-verification                      /guilds/{guild_id}/member-verification                        guilds/5
GET                   /guilds/5/members                                  /guilds/{guild_id}/members                                    guilds/5
GET PUT PATCH DELETE  /guilds/5/members/8                                /guilds/{guild_id}/members/{user_id}                          guilds/5
PATCH                 /guilds/5/members/@me                              /guilds/{guild_id}/members/@me                                guilds/5
PATCH                 /guilds/5/members/@me/nick                         /guilds/{guild_id}/members/@me/nick                           guilds/5
PUT DELETE            /guilds/5/members/8/roles/9                        /guilds/{guild_id}/members/{user_id}/roles/{role_id}          guilds/5
GET                   /guilds/5/members/search                           /guilds/{guild_id}/members/search                             guilds/5
GET                   /guilds/5/messages/search                          /guilds/{guild_id}/messages/search                            guilds/5
POST                  /guilds/5/mfa                                      /guilds/{guild_id}/mfa                                        guilds/5
GET                   /guilds/5/new-member-welcome                       /guilds/{guild_id}/new-member-welcome                         guilds/5
GET PUT               /guilds/5/onboarding                               /guilds/{guild_id}/onboarding                                 guilds/5
GET                   /guilds/5/preview                                  /guilds/{guild_id}/preview                                    guilds/5
GET POST              /guilds/5/prune                                    /guilds/{guild_id}/prune                                      guilds/5
GET                   /guilds/5/regions                                  /guilds/{guild_id}/regions                                    guilds/5
GET                   /guilds/5/requests                                 /guilds/{guild_id}/requests                                   guilds/5
GET POST PATCH        /guilds/5/roles                                    /guilds/{guild_id}/roles                                      guilds/5
GET PATCH DELETE      /guilds/5/roles/8                                  /guilds/{guild_id}/roles/{role_id}                            guilds/5
GET                   /guilds/5/roles/member-counts                      /guilds/{guild_id}/roles/member-counts                        guilds/5
GET POST              /guilds/5/scheduled-events                         /guilds/{guild_id}/scheduled-events                           guilds/5
GET PATCH DELETE      /guilds/5/scheduled-events/8                       /guilds/{guild_id}/scheduled-events/{scheduled_event_id}      guilds/5
GET                   /guilds/5/scheduled-events/8/users                 /guilds/{guild_id}/scheduled-events/{scheduled_event_id}/users  guilds/5
GET POST              /guilds/5/soundboard-sounds                        /guilds/{guild_id}/soundboard-sounds                          guilds/5
GET PATCH DELETE      /guilds/5/soundboard-sounds/8                      /guilds/{guild_id}/soundboard-sounds/{sound_id}               guilds/5
GET POST              /guilds/5/stickers                                 /guilds/{guild_id}/stickers                                   guilds/5
GET PATCH DELETE      /guilds/5/stickers/8                               /guilds/{guild_id}/stickers/{sticker_id}                      guilds/5
GET POST              /guilds/5/templates                                /guilds/{guild_id}/templates                                  guilds/5
PUT PATCH DELETE      /guilds/5/templates/hgM48av5Q69A                   /guilds/{guild_id}/templates/{template_code}                  guilds/5
GET                   /guilds/5/threads/active                           /guilds/{guild_id}/threads/active                             guilds/5
GET PATCH             /guilds/5/vanity-url                               /guilds/{guild_id}/vanity-url                                 guilds/5
GET PATCH             /guilds/5/voice-states/8                           /guilds/{guild_id}/voice-states/{user_id}                     guilds/5
GET PATCH             /guilds/5/voice-states/@me                         /guilds/{guild_id}/voice-states/@me                           guilds/5
GET                   /guilds/5/webhooks                                 /guilds/{guild_id}/webhooks                                   guilds/5
GET PATCH             /guilds/5/welcome-screen                           /guilds/{guild_id}/welcome-screen                             guilds/5
GET PATCH             /guilds/5/widget                                   /guilds/{guild_id}/widget                                     guilds/5
GET                   /guilds/5/widget.json                              /guilds/{guild_id}/widget.json                                guilds/5
GET                   /guilds/5/widget.png                               /guilds/{guild_id}/widget.png                                 guilds/5
GET POST              /guilds/templates/hgM48av5Q69A                     /guilds/templates/{template_code}
POST                  /interactions/4/secret/callback                    /interactions/{interaction_id}/{interaction_token}/callback   interactions/4/#
GET DELETE            /invites/discord-developers                        /invites/{invite_code}
GET PUT               /invites/0vCdhLbwjZZTWZLD/target-users             /invites/{invite_code}/target-users
GET                   /invites/0vCdhLbwjZZTWZLD/target-users/job-status  /invites/{invite_code}/target-users/job-status
POST PUT              /lobbies                                           /lobbies
GET PATCH DELETE      /lobbies/6                                         /lobbies/{lobby_id}
PATCH                 /lobbies/6/channel-linking                         /lobbies/{lobby_id}/channel-linking
PUT DELETE            /lobbies/6/members/8                               /lobbies/{lobby_id}/members/{user_id}
POST                  /lobbies/6/members/8/invites                       /lobbies/{lobby_id}/members/{user_id}/invites
DELETE                /lobbies/6/members/@me                             /lobbies/{lobby_id}/members/@me
POST                  /lobbies/6/members/@me/invites                     /lobbies/{lobby_id}/members/@me/invites
POST                  /lobbies/6/members/bulk                            /lobbies/{lobby_id}/members/bulk
GET POST              /lobbies/6/messages                                /lobbies/{lobby_id}/messages
PUT                   /lobbies/6/messages/8/moderation-metadata          /lobbies/{lobby_id}/messages/{message_id}/moderation-metadata
GET                   /oauth2/@me                                        /oauth2/@me
GET                   /oauth2/applications/@me                           /oauth2/applications/@me
GET                   /oauth2/keys                                       /oauth2/keys
POST                  /oauth2/token                                      /oauth2/token
POST                  /oauth2/token/revoke                               /oauth2/token/revoke
GET                   /oauth2/userinfo                                   /oauth2/userinfo
POST                  /partner-sdk/provisional-accounts/unmerge/bot      /partner-sdk/provisional-accounts/unmerge/bot
POST                  /partner-sdk/token/bot                             /partner-sdk/token/bot
GET                   /skus/8/subscriptions                              /skus/{sku_id}/subscriptions
GET                   /skus/8/subscriptions/9                            /skus/{sku_id}/subscriptions/{subscription_id}
GET                   /soundboard-default-sounds                         /soundboard-default-sounds
POST                  /stage-instances                                   /stage-instances
GET PATCH DELETE      /stage-instances/1                                 /stage-instances/{channel_id}
GET                   /sticker-packs                                     /sticker-packs
GET                   /sticker-packs/8                                   /sticker-packs/{sticker_pack_id}
GET                   /stickers/8                                        /stickers/{sticker_id}
GET                   /users/8                                           /users/{user_id}
GET PATCH             /users/@me                                         /users/@me
GET PUT DELETE        /users/@me/applications/7/role-connection          /users/@me/applications/{application_id}/role-connection
POST                  /users/@me/channels                                /users/@me/channels
GET                   /users/@me/connections                             /users/@me/connections
GET                   /users/@me/guilds                                  /users/@me/guilds
DELETE                /users/@me/guilds/5                                /users/@me/guilds/{guild_id}
GET                   /users/@me/guilds/5/member                         /users/@me/guilds/{guild_id}/member
GET                   /voice/regions                                     /voice/regions
GET PATCH DELETE      /webhooks/9                                        /webhooks/{webhook_id}                                        webhooks/9
GET POST PATCH DELETE  /webhooks/9/secret                                /webhooks/{webhook_id}/{webhook_token}                        webhooks/9/#
POST                  /webhooks/9/secret/github                          /webhooks/{webhook_id}/{webhook_token}/github                 webhooks/9/#
POST                  /webhooks/9/secret/slack                           /webhooks/{webhook_id}/{webhook_token}/slack                  webhooks/9/#
GET PATCH DELETE      /webhooks/9/secret/messages/2                      /webhooks/{webhook_id}/{webhook_token}/messages/{message_id}  webhooks/9/#
GET PATCH DELETE      /webhooks/9/secret/messages/@original              /webhooks/{webhook_id}/{webhook_token}/messages/@original     webhooks/9/#
"""  # noqa: E501
ROW = re.compile(r"([A-Z ]+?) +(/\S+) +(/\S+)(?: +(\S+))?")


def endpoints() -> list[tuple[str, str, str, str]]:
    """Method, example, template and top-level resource of every endpoint."""
    digest = blake2b(b"secret", digest_size=8).hexdigest()
    found = [row.groups("") for line in ENDPOINTS.strip().splitlines() if (row := ROW.fullmatch(line))]
    return [(m, path, end, major.replace("#", digest)) for many, path, end, major in found for m in many.split()]
