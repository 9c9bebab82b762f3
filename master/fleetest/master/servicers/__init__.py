"""The gRPC services. Protobuf types stay here and in `convert` modules."""
