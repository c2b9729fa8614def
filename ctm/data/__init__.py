"Samples of any data set: the contract, sizes, tiles, labels, masks, cache, batches, colours and plots."
