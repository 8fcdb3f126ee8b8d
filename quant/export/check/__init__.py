"""Does the exported file compute what the prepared model computes?"""
