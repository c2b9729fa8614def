"Training: configurations and their sources, recipes, schedules, checkpoints, the loop."
