#include "device/cuda/host/step_graphs.h"

#include <utility>

namespace steelyard::cuda {

StepGraphs::StepGraphs(Gpu& gpu, const StepLimits& limits, const Enqueue& enqueue) : gpu_(gpu) {
  for (const BucketSize& size : bucket_sizes(limits)) buckets_.push_back({size.rows, size.outputs});
  LookupLauncher lookup(gpu_);
  for (const Bucket& b : buckets_) enqueue(b.rows, b.outputs, lookup);
  // Not the device's queue: what another model starts there meanwhile would be captured too.
  Stream stream(gpu_);
  try {
    for (Bucket& b : buckets_)
      if (b.rows <= kGraphRows) capture(b, stream.get(), enqueue);
    stream.synchronize();
  } catch (...) {
    destroy();
    throw;
  }
}

StepGraphs::~StepGraphs() { destroy(); }

void StepGraphs::destroy() {
  for (Bucket& b : buckets_)
    if (b.graph) gpu_.driver().graph_exec_destroy(std::exchange(b.graph, nullptr));
}

void StepGraphs::capture(Bucket& bucket, CuStream stream, const Enqueue& enqueue) {
  const Driver& d = gpu_.driver();
  CuGraph graph = nullptr;
  gpu_.check(d.capture_begin(stream, kCaptureThreadLocal), "capturing a graph");
  try {
    StreamLauncher launcher(gpu_, stream);
    enqueue(bucket.rows, bucket.outputs, launcher);
  } catch (...) {
    d.capture_end(stream, &graph);
    if (graph) d.graph_destroy(graph);
    throw;
  }
  gpu_.check(d.capture_end(stream, &graph), "capturing a graph");
  const CuResult result = d.graph_instantiate(&bucket.graph, graph, 0);
  d.graph_destroy(graph);
  gpu_.check(result, "instantiating a graph");
  gpu_.check(d.graph_upload(bucket.graph, stream), "uploading a graph");
}

const StepGraphs::Bucket& StepGraphs::bucket_for(std::uint32_t rows, std::uint32_t outputs) const {
  for (const Bucket& b : buckets_)
    if (b.rows >= rows && b.outputs >= outputs) return b;
  return buckets_.back();
}

}  // namespace steelyard::cuda
