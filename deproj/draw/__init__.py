"""States to pictures: what belongs to a Stable Diffusion, its sampler, sheets. Imports `deproj.clip` and the floors below it."""
