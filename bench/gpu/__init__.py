"""The benchmark on an NVIDIA GPU: fusedrnn beside torch (cuDNN) in one process, for `compare.py --device cuda`."""
