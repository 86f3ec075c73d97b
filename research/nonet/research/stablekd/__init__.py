"""StableKD: knowledge distillation block by block, the blocks merged step by step until they are one."""
