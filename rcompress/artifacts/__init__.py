"""What travels between commands: checkpoints, ONNX files, engines, result records, and their lineage."""
