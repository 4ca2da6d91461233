"""What is wrong with a deployment, as a client sees it: facts gathered, and findings made of them."""
