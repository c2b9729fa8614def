"Networks and maps of other methods: CAM, a plain ViT, MCTformer."
