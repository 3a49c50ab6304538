#include "api/fields.h"

#include "api/json_limits.h"

namespace steelyard::api {

Json parse_object(std::string_view body) {
  check_json_limits(body);
  Json json;
  try {
    json = Json::parse(body);
  } catch (const Json::parse_error& e) {
    const std::string_view why = e.what();
    if (why.find("surrogate") != why.npos || why.find("UTF-8") != why.npos)
      throw_error(
          ErrorKind::bad_input,
          "the request body holds a broken character at byte {}: half of a surrogate pair, or no UTF-8",
          e.byte);
    throw_error(ErrorKind::bad_input, "the request body is no valid JSON (byte {})", e.byte);
  } catch (const Json::exception&) {  // a number that no type holds
    throw_error(ErrorKind::bad_input, "the request body holds a number out of range");
  }
  if (!json.is_object()) throw_error(ErrorKind::bad_input, "the request body must be a JSON object");
  return json;
}

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace steelyard::api
