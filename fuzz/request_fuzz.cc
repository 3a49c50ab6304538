// ROOMS: api engine base
// Any bytes as a request body, in each dialect: a request whose values keep their promises, or an Error.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "api/access.h"
#include "api/requests.h"
#include "base/error.h"

namespace {

using namespace steelyard;
using namespace steelyard::api;

void check_options(const Options& o) {
  const SamplingParams& s = o.sampling;
  const bool ok = s.temperature >= 0 && s.top_k >= 0 && s.top_p >= 0 && s.top_p <= 1 &&
                  s.repeat_penalty > 0 && s.repeat_last_n >= -1 && o.num_predict >= -2 && o.stop.size() <= 64;
  if (!ok) std::abort();
}

void check_messages(const nlohmann::ordered_json& messages) {
  for (const auto& m : messages)
    if (!m.is_object() || !m.at("role").is_string() || !m.at("content").is_string()) std::abort();
  // A request travels on as text: it must be writable again.
  if (messages.dump().empty()) std::abort();
}

template <typename Parse>
void attempt(const Parse& parse) {
  try {
    parse();
  } catch (const Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 4) {
    case 0:
      attempt([&] { check_options(parse_generate(body).options); });
      break;
    case 1:
      attempt([&] {
        const ChatRequest r = parse_chat(body);
        check_options(r.options);
        check_messages(r.input.messages);
      });
      break;
    case 2:
      attempt([&] {
        const OpenAiChatRequest r = parse_openai_chat(body);
        check_options(r.options);
        check_messages(r.input.messages);
      });
      break;
    default:
      attempt([&] { parse_keep_alive(body); });
      refusal(AccessRules{}, std::string(body), std::string(body));
  }
  return 0;
}
