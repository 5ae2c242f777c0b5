"""Channel spaces: backbones in which a search decides how many channels each layer keeps."""
