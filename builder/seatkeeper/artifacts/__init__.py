"""What a build is made from and what comes of it: plan, manifest, engine key, store."""
