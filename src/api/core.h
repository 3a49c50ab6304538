// What the connections of one server share.
#pragma once

#include <atomic>
#include <boost/asio.hpp>
#include <cstdint>

#include "api/access.h"
#include "api/body_budget.h"
#include "api/handlers.h"
#include "api/mailbox.h"
#include "api/server.h"
#include "engine/model_manager.h"
#include "store/store.h"

namespace steelyard::api {

struct ServerCore {
  ServerCore(ServerOptions o, ModelManager& m, const ModelStore& store);

  ServerOptions options;
  AccessRules access;
  ModelManager& models;
  Handlers handlers;
  asio::io_context io;
  BodyBudget bodies;
  Workers quick;    // lists of models: always answered
  Workers workers;  // what reads a request and makes its prompt
  std::atomic<bool> stopping{false};
  std::atomic<std::uint32_t> connections{0};

  // After a large request: gives memory back that the allocator keeps, at most once a second. From any
  // thread.
  void trim_later();

 private:
  std::atomic<bool> trimming_{false};
};

}  // namespace steelyard::api
