"""Request and response shapes, one module a resource, fields as the SDKs spell them."""
