"""README and documentation: their code runs, their types check, their links and figures hold."""
