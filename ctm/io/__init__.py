"Reading of files from strangers: one guard, images, masks and rasters."
