"""One thin module per DVC stage: load typed inputs, one call, write.

- `control`: can the loaders of counterfactuals be trusted for this architecture?
- `convert_gguf`: a checkpoint to GGUF with llama.cpp's own converter.
- `convert_mlx`: a checkpoint to MLX by one recipe, with mlx-lm.
- `counterfactual`: an artifact's stored weights in the float32 reference runtime.
- `drift`: every hop of the lineage, and for each item the first hop that changed it.
- `grade`: every answer of every cell against its item's checks. No model runs.
- `lineage`: the evidence of this run, small and in git, under `reports/lineage/`.
- `merge`: one adapter merged into the source.
- `pin`: the source checkpoint, or one adapter, verified and copied into the project.
- `probe`: runs every time, costs little, and tells DVC what it cannot see by itself.
- `prompts`: every evalset checked, then rendered and tokenized once.
- `quantize`: a GGUF to one quantization, through llama.cpp.
- `report`: `lineage.html`, `lineage.md`, `metrics.json`, `plots/` from what others measured.
- `score`: one cell, run through its own runtime in a child process.
"""
