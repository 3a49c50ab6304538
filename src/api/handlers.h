// What each path does, without a socket: a request in, a complete reply or a generation to run out.
#pragma once

#include <memory>
#include <string>

#include "api/answers.h"
#include "engine/engine.h"
#include "engine/loaded_model.h"
#include "engine/model_manager.h"
#include "store/store.h"

namespace steelyard::api {

struct HttpRequest {
  std::string method;  // "GET"
  std::string target;  // "/api/chat?x=1"
  std::string body;
};

// Either `format` is empty and `reply` is the answer, or `request` is to be submitted to the model's engine
// and told in `format`.
struct Handled {
  Reply reply;
  std::unique_ptr<AnswerFormat> format;
  std::shared_ptr<const LoadedModel> model;  // held while the generation runs
  EngineRequest request;
  bool stream = false;
  std::string note;  // for the log: what of the request was ignored; printable, or empty
};

// Thread-safe; handle() may block while a model loads, and never throws.
class Handlers {
 public:
  // Both must outlive it.
  Handlers(ModelManager& models, const ModelStore& store) : models_(models), store_(store) {}
  Handled handle(const HttpRequest& request) const;

 private:
  Handled route(const HttpRequest& request) const;
  Handled generate(const std::string& body) const;
  Handled chat(const std::string& body) const;
  Handled openai_chat(const std::string& body) const;
  Handled load_or_unload(const CommonRequest& request, bool chat) const;
  Reply tags() const;
  Reply openai_models(std::string_view id) const;

  ModelManager& models_;
  const ModelStore& store_;
};

// The dialect in which errors of a path are told.
Dialect dialect_of(std::string_view target);

}  // namespace steelyard::api
