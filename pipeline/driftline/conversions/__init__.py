"""The steps that make artifacts, each by the tool its users would take.

- `pin`: a byte copy of a source or an adapter, local or from the Hub, and its identity.
- `checkpoint_lint`: refuses what could run code or is not whole, before anything is loaded.
- `merge`: an adapter merged into its checkpoint by PEFT, in float32.
- `gguf`: a checkpoint to GGUF by llama.cpp's converter, and on to fewer bits by its quantizer.
- `llama_cpp_source`: that converter, of the very llama.cpp that will run the file.
- `mlx`: a checkpoint to MLX by mlx-lm, plain or quantized.
"""
