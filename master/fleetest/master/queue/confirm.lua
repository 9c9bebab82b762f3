-- request: claims, as the prelude reads them
confirm_claims()
