"""Triton kernels. Nothing outside of `attnprobe.engines.triton` imports them: they need triton, which may be absent."""
