"""Which agent looks best?"""
