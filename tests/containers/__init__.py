"""The image of containers/Dockerfile, built and used."""
