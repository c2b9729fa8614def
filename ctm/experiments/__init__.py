"Runs of every method, from a configuration and a seed to a result, with lower bounds and variants."
