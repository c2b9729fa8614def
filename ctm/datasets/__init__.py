"Readers of the data sets, one module each, and of one's own folder of images."
