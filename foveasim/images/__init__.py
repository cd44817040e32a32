"""From a path or a name to pixels: pictures, archives, data sets, pools of images."""
