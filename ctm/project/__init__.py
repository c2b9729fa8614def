"A user's own folder: from images and a table of labels to masks, exports, stage two."
