// Which paths there are: a table a dialect, each in a file of its own.
#pragma once

#include <span>
#include <stop_token>
#include <string>
#include <string_view>

#include "api/access.h"
#include "api/handlers.h"
#include "api/left_out.h"
#include "engine/model_manager.h"
#include "store/jobs.h"
#include "store/store.h"

namespace steelyard::api {

// What handlers work with. All of it is thread-safe and outlives the requests.
struct Services {
  ModelManager& models;
  const ModelStore& store;
  std::string_view version;
  LeftOut& left_out;
  const Metrics& metrics;
  StoreJobs& jobs;
};

struct Call {
  std::string_view body;
  std::string_view rest;   // of the path, for a route that ends with '/'
  std::string_view query;  // after '?'
  std::stop_token stop;    // asked to stop: nobody waits for the answer
};

// A GET route answers HEAD too, unless there is one of its own. May throw; never waits for a model.
struct Route {
  std::string_view method, path;  // a path that ends with '/' stands for all that begin so
  Lane lane;
  Handled (*handler)(const Services& services, const Call& call);
  Need need = Need::ask;
};

std::span<const Route> ollama_routes();
std::span<const Route> show_routes();
std::span<const Route> models_routes();
std::span<const Route> openai_routes();
std::span<const Route> embed_routes();
std::span<const Route> responses_routes();
std::span<const Route> anthropic_routes();
std::span<const Route> llama_server_routes();

}  // namespace steelyard::api
