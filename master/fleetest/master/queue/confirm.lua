-- request: claims = {{id, worker}, ...}
confirm_claims()
