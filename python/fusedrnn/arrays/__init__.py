"""The ground floor: arrays as a user gives them, on whatever device, and what every part of the package asks of them.

Here are the checks of arguments with their one wording, the namespaces that compute with arrays, what is known of
devices before anything of CUDA is loaded, lengths of sequences, and the sums whose bits depend on nothing else. Nothing
here knows of layers.
"""
