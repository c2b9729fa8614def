"Masks from a trained model: of a data set, of large rasters."
