"""Files in and out: images, annotations, results, on their exact grids. No torch."""
