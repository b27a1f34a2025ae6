# Objects made without their __init__.
cdef extern from "gtcp_object.h":
    object new_object "gtcp_new_object"(object type, object args)
