"""Generic asyncio pieces that know nothing of images."""
