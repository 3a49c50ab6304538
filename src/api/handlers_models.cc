// Ollama's paths that change what models there are.
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "api/blobs.h"
#include "api/handler_parts.h"
#include "api/request_parts.h"
#include "api/routes.h"
#include "base/error.h"
#include "base/process.h"
#include "base/readable.h"
#include "engine/model_manager.h"
#include "store/create.h"
#include "store/jobs.h"
#include "store/mixture.h"
#include "store/model_name.h"
#include "store/pull.h"
#include "store/store.h"
#include "store/store_folder.h"

namespace steelyard::api {
namespace {

constexpr std::string_view kBlobs = "/api/blobs/";

// "name" is the older word for "model".
std::string named_model(const Fields& f) {
  const std::string name = f.text("model").value_or(f.text("name").value_or(""));
  if (name.empty()) throw_error(ErrorKind::bad_input, "\"model\" is missing");
  return name;
}

std::string needed_name(const Fields& f, const char* key) {
  const std::string name = f.text(key).value_or("");
  if (name.empty()) throw_error(ErrorKind::bad_input, "\"{}\" is missing", key);
  return name;
}

Handled done() { return reply_only({.body = ""}); }

// What is loaded of it goes too, unless another name leads to the same file.
Handled remove(const Services& s, const Call& call) {
  const Json json = parse_object(call.body);
  const std::string name = named_model(Fields(json));
  s.store.remove(name, [&](const std::string& whole) { s.models.unload(whole); });
  return done();
}

Handled copy(const Services& s, const Call& call) {
  const Json json = parse_object(call.body);
  const Fields f(json);
  s.store.copy(needed_name(f, "source"), needed_name(f, "destination"));
  return done();
}

Handled followed(std::shared_ptr<StoreJob::Follower> job, const std::string& model, const Fields& f) {
  Handled h;
  h.job = std::move(job);
  h.model_name = model;
  h.stream = f.flag("stream").value_or(true);
  return h;
}

Handled pull(const Services& s, const Call& call) {
  const Json json = parse_object(call.body);
  const Fields f(json);
  const std::string name = named_model(f);
  const auto parsed = parse_model_name(name);
  if (!parsed) throw_error(ErrorKind::bad_input, "'{}' is not a model's name", readable(name));
  const PullOptions options{.insecure = f.flag("insecure").value_or(false)};
  auto job = s.jobs.begin("pull " + parsed->text(), [folder = s.store.own(), name, options](
                                                        const OnStep& on_step, const std::stop_token& stop) {
    pull_model(folder, name, options, on_step, stop);
  });
  return followed(std::move(job), name, f);
}

// Its value as text: of a JSON list or object, or empty where there is none.
std::string checked_json(const Fields& f, const char* key, bool list) {
  const Json* value = f.find(key);
  if (!value) return {};
  if (list ? !value->is_array() : !value->is_object()) f.wrong(key, list ? "a list" : "an object");
  return value->dump();
}

// The one GGUF file among those that were sent.
std::string gguf_of(const Fields& f) {
  const Json* files = f.find("files");
  if (!files || (files->is_object() && files->empty())) return {};
  if (!files->is_object()) f.wrong("files", "an object of names and digests");
  if (files->size() > 1 || !files->items().begin().key().ends_with(".gguf"))
    f.refuse("files", "may only hold one file, in GGUF: others can't be made models of yet");
  const Json& value = files->begin().value();
  const auto digest = value.is_string() ? canonical_digest(value.get<std::string>()) : std::nullopt;
  if (!digest) f.wrong("files", "an object of names and digests (\"sha256:…\")");
  return *digest;
}

void refuse_parts(const Fields& f) {
  if (f.find("modelfile"))
    f.refuse("modelfile", "is the older form: use \"from\", \"system\", \"parameters\" and so on");
  for (const char* key : {"adapters", "renderer", "parser", "draft", "requires"})
    if (const Json* value = f.find(key); value && !value->empty() && *value != "")
      f.refuse(key, "isn't supported: leave it out");
}

NewModel parse_create(const Json& json) {
  const Fields f(json);
  refuse_parts(f);
  NewModel wanted;
  wanted.name = named_model(f);
  wanted.digest = gguf_of(f);
  wanted.from = f.text("from").value_or("");
  if (wanted.digest.empty() == wanted.from.empty())
    throw_error(ErrorKind::bad_input,
                "\"from\", a model's name, or \"files\" is needed, and one of them alone");
  if (!parse_model_name(wanted.name))
    throw_error(ErrorKind::bad_input, "'{}' is not a model's name", readable(wanted.name));
  wanted.chat_template = f.text("template");
  wanted.system = f.text("system");
  wanted.licenses = f.texts("license");
  wanted.parameters = checked_json(f, "parameters", false);
  if (!wanted.parameters.empty()) read_options({{"options", *f.find("parameters")}});  // throws what is wrong
  wanted.messages = checked_json(f, "messages", true);
  if (!wanted.messages.empty()) read_messages(json);
  wanted.quantize = f.text("quantize").value_or(f.text("quantization").value_or(""));
  if (!wanted.quantize.empty()) parse_mixture(wanted.quantize);
  wanted.threads = cpu_share().threads;
  return wanted;
}

Handled create(const Services& s, const Call& call) {
  const Json json = parse_object(call.body);
  NewModel wanted = parse_create(json);
  const std::string name = wanted.name;
  auto job = s.jobs.begin(
      "", [store = s.store, wanted = std::move(wanted)](const OnStep& on_step, const std::stop_token& stop) {
        create_model(store, wanted, on_step, stop);
      });
  return followed(std::move(job), name, Fields(json));
}

std::string blob_digest(std::string_view text) {
  auto digest = canonical_digest(text);
  if (!digest)
    throw_error(ErrorKind::bad_input, "'{}' is no digest: \"sha256:\" and 64 digits", readable(text, 100));
  return std::move(*digest);
}

Handled blob_is_there(const Services& s, const Call& call) {
  if (s.store.own().has_blob(blob_digest(call.rest))) return done();
  throw Error(ErrorKind::not_found, "there is no such blob");
}

// Connections take these bodies in pieces (begin_blob).
Handled blob_in_one(const Services&, const Call&) {
  throw Error(ErrorKind::internal, "a blob came in one piece");
}

Handled push(const Services&, const Call&) {
  throw Error(ErrorKind::unsupported, "models can't be pushed from here: they stay on this machine");
}

}  // namespace

bool is_blob_upload(std::string_view method, std::string_view target) {
  return method == "POST" && target.starts_with(kBlobs);
}

Reply begin_blob(const ModelStore& store, std::string_view target, std::optional<std::uint64_t> bytes,
                 std::unique_ptr<BlobWriter>& writer, std::string& digest) {
  target = target.substr(0, target.find('?'));
  digest = blob_digest(target.substr(kBlobs.size()));
  const StoreFolder folder = store.own();
  if (folder.has_blob(digest)) return {};
  folder.make();
  folder.check_room(bytes.value_or(0));
  writer = std::make_unique<BlobWriter>(folder);
  return {};
}

std::span<const Route> models_routes() {
  static constexpr Route kRoutes[] = {
      {"POST", "/api/pull", Lane::work, pull, Need::manage},
      {"POST", "/api/create", Lane::work, create, Need::manage},
      {"HEAD", "/api/blobs/", Lane::quick, blob_is_there, Need::manage},
      {"POST", "/api/blobs/", Lane::work, blob_in_one, Need::manage},
      {"POST", "/api/push", Lane::work, push, Need::manage},
      {"DELETE", "/api/delete", Lane::work, remove, Need::manage},
      {"POST", "/api/copy", Lane::work, copy, Need::manage},
  };
  return kRoutes;
}

}  // namespace steelyard::api
