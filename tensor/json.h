#pragma once
// nlohmann::json, whose parser and writer are compiled once, in json.cpp: each file that used them took
// 2.5 seconds more.
#include <nlohmann/json.hpp>

extern template class nlohmann::detail::serializer<nlohmann::json>;
extern template class nlohmann::detail::serializer<nlohmann::ordered_json>;
extern template class nlohmann::detail::lexer<nlohmann::json,
                                              nlohmann::detail::iterator_input_adapter<const char*>>;
extern template class nlohmann::detail::parser<nlohmann::json,
                                               nlohmann::detail::iterator_input_adapter<const char*>>;
extern template class nlohmann::detail::json_sax_dom_parser<nlohmann::json>;
