"""An artifact's stored weights, run in the reference runtime: what a change of weights alone does.

- `base`: the contract of a stored format, and which formats there are.
- `gguf`: a GGUF, loaded by Transformers and explained by llama.cpp's own quantizer.
- `mlx`: an MLX folder, dequantized and explained by MLX itself.
- `control`: whether a format's loader can be trusted, tried on a small random checkpoint.
- `record`: one artifact's counterfactual, made and held against what the artifact came from.
- `fields`: what an artifact says beside its weights, field by field.
- `tensors`: stored tensors against their parents', and whether the storage type explains them.
- `reference`: the reference runtime's model as counterfactuals use it.
"""
