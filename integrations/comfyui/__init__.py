"""ComfyUI's nodes of deproj: link this folder into ComfyUI's ``custom_nodes`` (README.md).

A CONDITIONING of Stable Diffusion 1.x carries an embedding, its "pooled_output". These nodes put it through a deprojector, and
write what they did into a CONDITIONING again, so they go between any two nodes that make and take one.
"""

from __future__ import annotations

from .nodes import DeprojectConditioning, DeprojectExpression, DeprojectImage, LoadDeprojector, MixEmbeddings

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]

NODE_CLASS_MAPPINGS = {
    "DeprojLoad": LoadDeprojector,
    "DeprojConditioning": DeprojectConditioning,
    "DeprojExpression": DeprojectExpression,
    "DeprojImage": DeprojectImage,
    "DeprojMix": MixEmbeddings,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "DeprojLoad": "Load Deprojector",
    "DeprojConditioning": "Deproject Conditioning",
    "DeprojExpression": "Deproject Expression",
    "DeprojImage": "Deproject Image",
    "DeprojMix": "Mix Embeddings",
}
