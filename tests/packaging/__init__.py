"""The distribution as users get it: built, installed away from the tree, and tested there (`make wheel-test`)."""
