"""WebShop (arXiv 2207.01206): official or generated catalogue, search, pages, reward and experts.

Splits: test is upstream's goals 0-499 and dev its 500-1499 where there are more than 1500 goals; with
`split_by: product` dev and test are made of products that no training goal is about.
"""
