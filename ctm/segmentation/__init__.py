"Stage two: a segmentation network trained on masks, its scores and submission files."
