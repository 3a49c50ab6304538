#include "store/pull.h"

#include <algorithm>

#include "base/error.h"
#include "base/readable.h"
#include "store/download.h"
#include "store/registry.h"

namespace steelyard {
namespace {

std::uint64_t missing_bytes(const StoreFolder& folder, const RemoteModel& model) {
  std::uint64_t sum = 0;
  for (const RemoteModel::Blob& blob : model.blobs) {
    if (folder.has_blob(blob.layer.digest)) continue;
    const std::uint64_t there = downloaded_before(folder, blob.layer.digest);
    sum += blob.layer.size - std::min(there, blob.layer.size);
  }
  return sum;
}

void fetch(const StoreFolder& folder, const RemoteModel::Blob& blob, const PullOptions& options,
           const OnStep& on_step, const std::stop_token& stop) {
  StepProgress step{"pulling " + blob.layer.digest.substr(7, 12), blob.layer.digest, blob.layer.size, 0};
  const auto tell = [&](std::uint64_t done) {
    step.done = done;
    on_step(step);
  };
  tell(folder.has_blob(blob.layer.digest) ? blob.layer.size : 0);
  download_blob(
      folder,
      {.source = blob.source,
       .digest = blob.layer.digest,
       .bytes = blob.layer.size,
       .connections = options.connections},
      tell,
      [&] {
        on_step({"verifying sha256 digest", "", 0, 0});
      },
      stop);
}

}  // namespace

void pull_model(const StoreFolder& folder, const std::string& text, PullOptions options,
                const OnStep& on_step, std::stop_token stop) {
  const auto name = parse_model_name(text);
  if (!name) throw_error(ErrorKind::bad_input, "'{}' is not a model's name", readable(text));
  options.insecure = options.insecure || text.starts_with("http://");
  on_step({"pulling manifest", "", 0, 0});
  WebClient client(stop);
  const RemoteModel model = name->on_hugging_face() ? find_on_hugging_face(client, *name)
                                                    : find_in_registry(client, *name, options.insecure);
  folder.make();
  folder.check_room(missing_bytes(folder, model));
  for (const RemoteModel::Small& small : model.smalls) folder.add_blob(small.kind, small.content);
  for (const RemoteModel::Blob& blob : model.blobs) fetch(folder, blob, options, on_step, stop);
  on_step({"writing manifest", "", 0, 0});
  folder.write_manifest(*name, model.manifest);
  on_step({"success", "", 0, 0});
}

}  // namespace steelyard
