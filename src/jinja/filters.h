// jinja2's filters, in two files. Internal to jinja/.
#pragma once

#include <map>
#include <string_view>

#include "jinja/value.h"

namespace steelyard::jinja {

using FilterTable = std::map<std::string_view, Function>;
void add_text_filters(FilterTable& table);
void add_sequence_filters(FilterTable& table);

}  // namespace steelyard::jinja
