// Ollama's paths that change what models there are.
#include <memory>
#include <string>
#include <utility>

#include "api/handler_parts.h"
#include "api/routes.h"
#include "base/error.h"
#include "base/readable.h"
#include "engine/model_manager.h"
#include "store/jobs.h"
#include "store/model_name.h"
#include "store/pull.h"
#include "store/store.h"

namespace steelyard::api {
namespace {

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

}  // namespace

std::span<const Route> models_routes() {
  static constexpr Route kRoutes[] = {
      {"POST", "/api/pull", Lane::work, pull, Need::manage},
      {"DELETE", "/api/delete", Lane::work, remove, Need::manage},
      {"POST", "/api/copy", Lane::work, copy, Need::manage},
  };
  return kRoutes;
}

}  // namespace steelyard::api
