#include "store/create.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/input_file.h"
#include "base/readable.h"
#include "gguf/gguf.h"
#include "gguf/split.h"
#include "gguf/summary.h"
#include "store/manifest.h"
#include "store/mixture.h"
#include "store/model_name.h"
#include "store/quantize_model.h"
#include "store/store_folder.h"

namespace steelyard {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr std::size_t kPiece = 1 << 20;

[[noreturn]] void cancelled() { throw Error(ErrorKind::cancelled, "it was cancelled: no model was made"); }

class Maker {
 public:
  Maker(const ModelStore& store, const NewModel& wanted, const OnStep& on_step, std::stop_token stop)
      : store_(store), folder_(store.own()), wanted_(wanted), on_step_(on_step), stop_(std::move(stop)) {}

  void make(const ModelName& name) {
    folder_.make();
    tell("gathering model components");
    base();
    tell("parsing GGUF");
    quantize();
    bring_along();
    const std::string type = describe();
    config(type);
    tell("writing manifest");
    folder_.write_manifest(name, manifest_text(made_));
    tell("success");
  }

 private:
  void tell(const std::string& status) { on_step_({status, "", 0, 0}); }

  void base() {
    if (!wanted_.digest.empty()) {
      if (!folder_.has_blob(wanted_.digest))
        throw_error(ErrorKind::not_found, "there is no blob {}: send it first", wanted_.digest);
      made_.layers = {
          {layer_media_type(kModelLayer), wanted_.digest, fs::file_size(folder_.blob_path(wanted_.digest))}};
    } else if (!wanted_.file.empty()) {
      made_.layers = {import(wanted_.file, kModelLayer)};
    } else {
      from_model();
    }
  }
  void from_model() {
    const auto stored = store_.stored(wanted_.from);
    if (!stored.ollama) {
      made_.layers = {import(stored.path, kModelLayer)};
      return;
    }
    for (const Layer& layer : stored.ollama->parts.layers) {
      if (layer.is(kAdapterLayer) || layer.is(kProjectorLayer)) continue;
      if (!folder_.has_blob(layer.digest))
        import(stored.ollama->folder / "blobs" / blob_file_name(layer.digest), "", layer.digest);
      tell("using existing layer " + layer.digest);
      made_.layers.push_back(layer);
    }
  }

  // Copies a file into the folder.
  Layer import(const fs::path& path, std::string_view kind, const std::string& expected = {}) {
    const auto split = parse_split_name(path.filename().string());
    if (split && split->count > 1)
      throw_error(ErrorKind::unsupported, "{} is a model in {} parts: make one file of them first",
                  readable(path.filename().string()), split->count);
    const InputFile file = InputFile::open(path);
    folder_.check_room(file.size());
    BlobWriter writer(folder_);
    std::vector<std::byte> piece(kPiece);
    for (std::uint64_t at = 0; at < file.size();) {
      if (stop_.stop_requested()) cancelled();
      const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(kPiece, file.size() - at));
      file.read(at, std::span(piece).first(n));
      writer.write(std::span(piece).first(n));
      at += n;
      on_step_({"copying file", "copy", file.size(), at});
    }
    return {layer_media_type(kind), writer.finish(expected), file.size()};
  }

  Layer& weights() {
    const auto found = std::ranges::find_if(made_.layers, [](const Layer& l) { return l.is(kModelLayer); });
    if (found == made_.layers.end())
      throw_error(ErrorKind::unsupported, "'{}' has no model in GGUF", readable(wanted_.from));
    return *found;
  }
  GgufFile open() { return GgufFile::open(folder_.blob_path(weights().digest)); }

  void quantize() {
    const GgufFile file = open();  // also where nothing is to be quantised: a broken file makes no model
    if (file.metadata().find_string("general.architecture").value_or("").empty())
      throw Error(ErrorKind::bad_input, "the file doesn't say of what architecture it is");
    if (wanted_.quantize.empty()) return;
    QuantizeOptions options;
    options.mixture = asked_mixture(wanted_.quantize, false);
    options.threads = wanted_.threads;
    const std::string status =
        fmt::format("quantizing {} model to {}", quantization_name(file), wanted_.quantize);
    options.progress = [&](std::uint64_t done, std::uint64_t total) {
      if (stop_.stop_requested()) cancelled();
      on_step_({status, "quantize", total, done});
    };
    const auto changes = choose_types(file, options);
    folder_.check_room(2 * totals_of(changes).after);
    const fs::path fresh =
        folder_.path() / "blobs" / (".quantized-" + weights().digest.substr(7, 16) + wanted_.quantize);
    write_quantized(file, changes, options, fresh);
    try {
      weights() = import(fresh, kModelLayer);
    } catch (...) {
      remove(fresh);
      throw;
    }
    remove(fresh);
  }
  static void remove(const fs::path& path) {
    std::error_code ignored;
    fs::remove(path, ignored);
  }

  void replace(std::string_view kind, std::string_view content) {
    std::erase_if(made_.layers, [&](const Layer& l) { return l.is(kind); });
    if (!content.empty()) add(kind, content);
  }
  void add(std::string_view kind, std::string_view content) {
    made_.layers.push_back(folder_.add_blob(kind, content));
    tell("creating new layer " + made_.layers.back().digest);
  }
  void bring_along() {
    if (wanted_.chat_template) {
      replace(kTemplateLayer, *wanted_.chat_template);
      tell("the template is kept for Ollama; Steelyard makes prompts by the one in the model's file");
    }
    if (wanted_.system) replace(kSystemLayer, *wanted_.system);
    if (!wanted_.messages.empty()) replace(kMessagesLayer, wanted_.messages == "[]" ? "" : wanted_.messages);
    if (!wanted_.parameters.empty()) replace(kParamsLayer, all_parameters());
    if (wanted_.licenses.empty()) return;
    replace(kLicenseLayer, "");
    for (const std::string& license : wanted_.licenses) add(kLicenseLayer, license);
  }
  std::string all_parameters() {
    Json all = Json::object();
    if (const Layer* layer = made_.find(kParamsLayer)) {
      const Json before = Json::parse(read_blob(folder_.path(), layer->digest), nullptr, false);
      if (before.is_object()) all = before;
    }
    const Json named = Json::parse(wanted_.parameters);
    for (const auto& [name, value] : named.items()) all[name] = value;
    return all.empty() ? "" : all.dump();
  }

  // For the config: "Q4_K_M".
  std::string describe() {
    const GgufFile file = open();
    family_ = file.metadata().find_string("general.architecture").value_or("");
    return quantization_name(file);
  }
  void config(const std::string& type) {
    Json ids = Json::array();
    for (const Layer& l : made_.layers) ids.push_back(l.digest);
    const Json json = {{"model_format", "gguf"},
                       {"model_family", family_},
                       {"model_families", {family_}},
                       {"model_type", ""},
                       {"file_type", type},
                       {"architecture", "amd64"},
                       {"os", "linux"},
                       {"rootfs", {{"type", "layers"}, {"diff_ids", ids}}}};
    made_.config = folder_.add_blob("config", json.dump());
    made_.config.media_type = "application/vnd.docker.container.image.v1+json";
  }

  const ModelStore& store_;
  const StoreFolder folder_;
  const NewModel& wanted_;
  const OnStep& on_step_;
  const std::stop_token stop_;
  Manifest made_;
  std::string family_;
};

}  // namespace

void create_model(const ModelStore& store, const NewModel& wanted, const OnStep& on_step,
                  std::stop_token stop) {
  const auto name = parse_model_name(wanted.name);
  if (!name) throw_error(ErrorKind::bad_input, "'{}' is not a model's name", readable(wanted.name));
  if (!wanted.quantize.empty()) parse_mixture(wanted.quantize);
  Maker(store, wanted, on_step, std::move(stop)).make(*name);
}

}  // namespace steelyard
