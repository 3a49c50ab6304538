// What a stored model brings along (ModelDefaults), put under what a request says.
#pragma once

#include <string>

#include "api/fields.h"
#include "api/requests.h"
#include "api/routes.h"
#include "engine/sampling_options.h"
#include "store/ollama.h"

namespace steelyard::api {

// A layer of parameters; a value that makes no sense is as if it weren't there.
Options parse_parameters(const std::string& layer);
// A layer of messages: those of users, answers and systems, with their texts.
Json parse_first_messages(const std::string& layer);

// `own` where `asked` says nothing.
void add_missing(AnswerWishes& asked, const AnswerWishes& own);

// Its parameters, where the request names none.
void add_parameters(CommonRequest& request, const ModelDefaults& defaults);
// Its first messages, unless the request goes on from a context, and its system message, unless the request
// has one.
void add_messages(GenerateRequest& request, const ModelDefaults& defaults);
void add_messages(ChatRequest& request, const ModelDefaults& defaults);

// Of the request's model. One that isn't there has none; who asks for it next says so.
ModelDefaults stored_defaults(const Services& services, const std::string& model);

template <typename Asked>
void add_defaults(const Services& services, Asked& request) {
  const ModelDefaults defaults = stored_defaults(services, request.model);
  add_parameters(request, defaults);
  if constexpr (requires { add_messages(request, defaults); }) add_messages(request, defaults);
}

}  // namespace steelyard::api
