"Parts of the model: attention with gates, classifiers, linear layers, pretrained weights, checks of what goes in."
