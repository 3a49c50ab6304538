// What each path does, without a socket: a request in; a reply, a model to get first, or a generation to run
// out.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "api/access.h"
#include "api/answers.h"
#include "api/left_out.h"
#include "api/metrics.h"
#include "engine/engine.h"
#include "engine/loaded_model.h"
#include "engine/model_manager.h"
#include "store/jobs.h"
#include "store/store.h"

namespace steelyard::api {

struct HttpRequest {
  std::string method;  // "GET"
  std::string target;  // "/api/chat?x=1"
  std::string body;
  std::stop_token stop;  // asked to stop: nobody waits for the answer, so no prompt is made
};

// Long work (`job` set) is followed until it ends. Else three stages, each optional: `wish` set means: get
// this model, then go on with `with_model`. Else `format` set means: submit `requests` to the model's engine
// and tell their answers in `format`. Else `reply` is the answer.
struct Handled {
  Reply reply;
  std::optional<ModelWish> wish;
  std::function<Handled(const ModelManager::Lease& lease)> with_model;  // may take a while; never throws
  std::shared_ptr<StoreJob::Follower> job;
  std::unique_ptr<AnswerFormat> format;
  std::shared_ptr<const LoadedModel> model;  // held while the generation runs
  std::vector<EngineRequest> requests;
  std::uint32_t alike = 1;          // so many of them in a row have one prompt
  std::uint32_t at_once = 1 << 30;  // so many of them may be in the engine
  bool stream = false;
  std::string model_name;  // as asked for, for the log
  std::string note;        // for the log: what of the request was ignored; printable, or empty
};

// Where a request is handled: by the connection's own thread, by one kept for what is quick, or by a worker.
enum class Lane : std::uint8_t { at_once, quick, work };

// Thread-safe. Never throws, never waits for a model.
class Handlers {
 public:
  // `models` and `store` must outlive it. `log` is told of models that can't be listed; from several threads.
  Handlers(ModelManager& models, const ModelStore& store, std::string version, LeftOut::Log log = {})
      : models_(models), store_(store), version_(std::move(version)), left_out_(std::move(log)) {}
  Lane lane(std::string_view method, std::string_view target) const;
  // Who may ask for it; of a path that isn't there: everybody who may ask.
  Need need(std::string_view method, std::string_view target) const;
  Handled handle(const HttpRequest& request) const;
  // The path of the route that answers, "other" where none does: one of few words, whatever is asked.
  std::string_view route_path(std::string_view method, std::string_view target) const;
  Metrics& metrics() { return metrics_; }
  const ModelStore& store() const { return store_; }

 private:
  ModelManager& models_;
  const ModelStore& store_;
  std::string version_;
  mutable LeftOut left_out_;
  Metrics metrics_;
  mutable StoreJobs jobs_;
};

// The dialect in which errors of a path are told.
Dialect dialect_of(std::string_view target);

// The reply for what was thrown; std::bad_alloc is said as what it is.
Reply reply_for(Dialect dialect, const std::exception_ptr& error);

}  // namespace steelyard::api
